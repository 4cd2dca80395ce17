"""Engines that run as processes of their own: started, watched, started again, and never left behind."""
