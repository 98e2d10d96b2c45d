"""Jobs: requests that are answered at once and served later, by whichever gateway is there."""
