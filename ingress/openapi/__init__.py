"""The OpenAPI document: made from what stands at the routes (`operation.documented`) and from the msgspec types."""
