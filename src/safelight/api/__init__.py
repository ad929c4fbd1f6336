"""The dialects: what each wire format says becomes one GenerationRequest, and what came out is said in it."""
