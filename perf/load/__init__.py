"""Load and what it is held against: a stand-in DynamoDB and a generator, each a process of its own."""
