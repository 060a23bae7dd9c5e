"""How Alembic is run: on the connection, and in the transaction, that `shared/storage/database.py`
opened.
"""

from alembic import context

context.configure(connection=context.config.attributes["connection"], transactional_ddl=False)
context.run_migrations()
