"""The five services of Muse and what they share."""
