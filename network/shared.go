package network

import (
	"context"
	"database/sql"
)

// Shared is a database that several controllers share: PostgreSQL.
type Shared struct{ s *Store }

// Shared is the store's database where several controllers can share it, nil
// on SQLite.
func (s *Store) Shared() *Shared {
	if !s.db.postgres {
		return nil
	}
	return &Shared{s}
}

// Postgres is the pool of connections.
func (d *Shared) Postgres() *sql.DB { return d.s.db.DB }

// Listen calls heard with each notification on a channel, and with "" when some
// may have been missed, until ctx ends.
func (d *Shared) Listen(ctx context.Context, channel string, heard func(payload string)) {
	d.s.db.hear(ctx, d.s.log, channel, heard)
}
