"""From a file to uint8 frames: names, spans, sources, sampling, decoding, resizing, signatures."""
