"""Parts that every server has, whatever it serves; knows no stage."""
