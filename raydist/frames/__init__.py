"""Frames of clips for training and evaluation: decoded once into a cache, read by whoever learns from them."""
