"""From a beginning to a continuation: the loop over concepts, and the pipeline from text to text."""
