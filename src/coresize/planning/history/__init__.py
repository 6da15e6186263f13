"""The recorded needs of earlier tasks, and predictions from them."""
