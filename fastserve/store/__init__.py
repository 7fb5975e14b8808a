"""Online stores, where rows are kept: one small interface over DynamoDB and a folder on this machine."""
