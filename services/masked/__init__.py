"""What the servicers of masked decoding, base and superres, share: requests in, events out."""
