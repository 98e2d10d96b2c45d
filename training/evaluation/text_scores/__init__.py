"""Scores of how well pictures show what their prompts say."""
