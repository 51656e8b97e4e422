"""Code that operator and agent share and that is not part of the API contract. Must not import the rest of hotpool."""
