"""Encoders: ViCLIP, CLIP and SigLIP behind one interface, and the tokenizer."""
