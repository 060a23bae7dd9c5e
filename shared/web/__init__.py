"""The shell of every web app: steps, operators, live pages, OpenAPI."""
