"""Signal processing shared by encoders, generators and metrics."""
