"""MLflow: client, writer, reader and delivery."""
