"""Sets of pictures of any data: reading them, and generating them through running servers."""
