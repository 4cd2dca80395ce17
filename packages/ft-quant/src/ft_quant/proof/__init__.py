"""The proof that what was exported works: it loads elsewhere, and answers as what it was made from."""
