"""The DynamoDB store: a wire client of our own for rows, aiobotocore for credentials and tables."""
