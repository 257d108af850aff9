"""One job, run by our simulator, by a plain loop and by three other frameworks, on one machine."""
