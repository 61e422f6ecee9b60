#!/usr/bin/env python3
"""What the databases of a lab need beside the projects' own tools.

  schema.py neutron CONFIG    neutron's tables at once from its models
  schema.py tune FILE...      make SQLite behave as a server's database would
  schema.py copy DIR FILE...  databases, while they are in use
"""
import glob
import importlib.util
import os
import sqlite3
import sys


def neutron(config):
    """Stands in for `neutron-db-manage upgrade heads`, which cannot run on
    SQLite (its migrations alter columns). What the migrations would have
    inserted, the default security group rules, is inserted here from their
    own lists."""
    import sqlalchemy as sa
    from neutron.db.migration import cli
    from neutron.db.migration.models import head

    cli.CONF(['--config-file', config, 'stamp', 'heads'], project='neutron')
    engine = sa.create_engine(cli.CONF.database.connection)
    md = head.get_metadata()
    md.create_all(engine)
    versions = os.path.join(os.path.dirname(os.path.abspath(cli.__file__)),
                            'alembic_migrations', 'versions')
    for path in glob.glob(versions + '/*/expand/*.py'):
        with open(path) as f:
            if 'default_template_rules' not in f.read():
                continue
        spec = importlib.util.spec_from_file_location('migration', path)
        m = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(m)
        attr = md.tables['standardattributes']
        table = md.tables[m.table_name]
        with engine.begin() as c:
            for rule in map(dict, m.default_template_rules):
                row = c.execute(attr.insert().values(
                    description=rule.pop('description'),
                    resource_type=m.table_name))
                c.execute(table.insert().values(
                    standard_attr_id=row.inserted_primary_key[0], **rule))
    engine.dispose()
    cli.CONF.command.func(cli.get_alembic_configs()[0], cli.CONF.command.name)


def tune(*files):
    """Write-ahead log, and row numbers that are never used twice.

    Heat deletes rows by numbers it remembers. SQLite gives the number of a
    deleted last row to the next one, so heat deletes the wrong row now and
    then, and the stack hangs. MySQL and PostgreSQL never do that; SQLite
    neither, if the table was created with AUTOINCREMENT.
    """
    for path in files:
        c = sqlite3.connect(path)
        c.execute('pragma journal_mode=wal')
        c.execute('create table lab_ (id integer primary key autoincrement)')
        c.execute('drop table lab_')  # leaves sqlite_sequence behind
        new = []
        for name, sql in c.execute(
                "select name, sql from sqlite_master where type='table' and "
                'sql is not null').fetchall():
            keys = [r for r in c.execute(f'pragma table_info("{name}")')
                    if r[5]]
            if len(keys) == 1 and keys[0][2].upper() == 'INTEGER':
                old = f'PRIMARY KEY ({keys[0][1]})'
                if old in sql:
                    new.append((sql.replace(old, old[:-1] + ' AUTOINCREMENT)'),
                                name))
        c.commit()
        c.execute('pragma writable_schema=on')
        c.executemany("update sqlite_master set sql=? where type='table' and "
                      'name=?', new)
        version = c.execute('pragma schema_version').fetchone()[0]
        c.execute(f'pragma schema_version={version + 1}')
        c.execute('pragma writable_schema=off')
        c.commit()
        c.close()
        c = sqlite3.connect(path)
        verdict = c.execute('pragma integrity_check').fetchone()[0]
        c.close()
        if verdict != 'ok':
            raise SystemExit(f'{path}: {verdict}')


def copy(folder, *files):
    """Each database as of one moment, while its service runs."""
    for path in files:
        source = sqlite3.connect(path)
        target = sqlite3.connect(os.path.join(folder, os.path.basename(path)))
        with target:
            source.backup(target)
        target.close()
        source.close()


COMMANDS = {'neutron': neutron, 'tune': tune, 'copy': copy}
if __name__ == '__main__':
    if len(sys.argv) < 3 or sys.argv[1] not in COMMANDS:
        raise SystemExit(__doc__)
    COMMANDS[sys.argv[1]](*sys.argv[2:])
