"""The contracts: what is declared, stored, published and answered, as pydantic and Arrow types."""
