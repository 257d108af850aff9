"""Model versions, what made each of them, who promoted which, and their model cards."""
