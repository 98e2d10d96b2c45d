"""Captioned pictures from files: WebDataset tars, Parquet, ArrayRecord and plain folders."""
