"""What has the network and no data: it carries envelopes between Flower and the agent's socket."""
