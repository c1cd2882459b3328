"""Exchange with other libraries' formats."""
