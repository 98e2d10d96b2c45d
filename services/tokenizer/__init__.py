"""The VQGAN tokenizers: images to tokens and back."""
