"""Reports about the promoted model: whose, when, what is counted, and in which order they leave."""
