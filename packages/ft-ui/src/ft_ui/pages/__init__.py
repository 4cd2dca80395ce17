"""The pages themselves; these modules import Gradio, so they are imported once a page is wanted."""
