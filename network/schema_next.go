//go:build planck_next

package network

// With this tag the program is one to come, for tests of upgrades: it has another
// table and column, something more to note about ports, and an object of a kind
// that others do not know.
func init() {
	ownSchema = append(ownSchema, migration{
		expand: []string{
			`CREATE TABLE trunks (id TEXT PRIMARY KEY)`,
			`ALTER TABLE claims ADD COLUMN note TEXT NOT NULL DEFAULT ''`,
			`UPDATE objects SET body = '{"hint":{"depth":7},' || substr(body, 2) WHERE kind = 'port'`,
			`INSERT INTO objects (kind, id, revision, body) VALUES ('trunk', 't1', 1, '{"id":"t1"}')`,
			`INSERT INTO claims (space, key, owner_kind, owner_id) VALUES ('trunk', 'x', 'trunk', 't1')`,
		},
		contract: []string{`ALTER TABLE claims DROP COLUMN note`},
	})
}
