"""LPIPS, the perceptual loss of tokenizer training: its weights' files and its distance.

Source: Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric".
"""
