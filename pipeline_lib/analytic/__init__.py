"""Data whose score is known exactly, the denoisers that follow from it, and the exact errors of linear chains."""
