"""What a site reports after training."""
