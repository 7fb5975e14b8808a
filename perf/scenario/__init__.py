"""The article's scenarios, shape for shape, at a rate that this machine holds."""
