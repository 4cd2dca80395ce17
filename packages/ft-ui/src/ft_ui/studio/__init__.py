"""The studio without its pages: runs, jobs, forms and what they say, as plain Python."""
