"""The web page: its files, which a browser runs as they are, and the routes that send them."""
