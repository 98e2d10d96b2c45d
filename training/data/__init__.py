"""Where training images and captions come from."""
