package network

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// RestoreOptions are how a backup is restored.
type RestoreOptions struct {
	// Force replaces what is in the database.
	Force bool
	// AcceptFaults takes a model whose derived objects do not agree.
	AcceptFaults bool
	// Living lists who works with the database, where it is PostgreSQL.
	Living Living
}

// FaultsError is why a backup is not restored: what is wrong in its model.
type FaultsError struct{ Faults []error }

// maxFaults is how many of them are told.
const maxFaults = 20

// Error implements error.
func (e *FaultsError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "the model in the backup is not consistent in %d places:", len(e.Faults))
	for _, f := range e.Faults[:min(len(e.Faults), maxFaults)] {
		b.WriteString("\n  " + f.Error())
	}
	if more := len(e.Faults) - maxFaults; more > 0 {
		fmt.Fprintf(&b, "\n  and %d more", more)
	}
	return b.String()
}

// RestoreBackup puts a backup into a database that nobody works with, all of it
// or nothing.
func RestoreBackup(ctx context.Context, dsn string, r io.Reader, opt RestoreOptions) (*BackupInfo, error) {
	return restore(ctx, dsn, r, opt, ownSchema)
}

func restore(ctx context.Context, dsn string, r io.Reader, opt RestoreOptions, known schema) (*BackupInfo, error) {
	b, lines, err := readBackup(r)
	if err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	d, err := connect(dsn, maintenance)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	t, state, err := d.beginMigration(ctx)
	if err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	defer t.end()
	release, err := t.mayReplace(ctx, state, opt, known)
	if err != nil {
		return nil, err
	}
	defer release()
	if err := t.replace(ctx, state, b, lines, known); err != nil {
		return nil, err
	}
	faults, err := t.check(ctx, lines)
	if err != nil {
		return nil, err
	}
	if len(faults) > 0 && !opt.AcceptFaults {
		return nil, &FaultsError{faults}
	}
	return b, t.Commit()
}

// mayReplace is nil when the tables may be replaced; nobody who uses SQLite can
// begin until it is released.
func (t *dbTx) mayReplace(ctx context.Context, state tableState, opt RestoreOptions, known schema) (release func(), err error) {
	if state.version > known.version() {
		return nil, fmt.Errorf("database: it has schema %d, this program knows %d: a newer one is needed", state.version, known.version())
	}
	if t.d.postgres && state.version == 0 {
		return func() {}, nil
	}
	release, members, err := t.keepOut(ctx, opt.Living)
	if err != nil {
		return nil, err
	}
	if len(members) > 0 {
		release()
		return nil, inUse(members)
	}
	if state.version == 0 || opt.Force {
		return release, nil
	}
	var objects int
	err = t.QueryRowContext(ctx, `SELECT COUNT(*) FROM objects`).Scan(&objects)
	if err == nil && objects > 0 {
		err = fmt.Errorf("database: it is not empty, it has %d objects: they are replaced with --force only", objects)
	}
	if err != nil {
		release()
		return nil, err
	}
	return release, nil
}

func inUse(members []Member) error {
	names := make([]string, len(members))
	for i, m := range members {
		names[i] = m.Name
	}
	return fmt.Errorf("%w: stop %s first", ErrInUse, strings.Join(names, ", "))
}

// epoch is that of UNIX.
var epoch = time.Date(1970, time.January, 1, 0, 0, 0, 0, time.UTC)

// replace makes the tables anew, with what a backup has.
func (t *dbTx) replace(ctx context.Context, state tableState, b *BackupInfo, lines []backupLine, known schema) error {
	revision, generation, members := b.Revision, b.Generation, "[]"
	if state.version > 0 {
		revision = max(revision, t.revision)
		had, err := t.generation(ctx)
		if err != nil {
			return err
		}
		generation = max(generation, had)
		if err := t.QueryRowContext(ctx, `SELECT members FROM cluster`).Scan(&members); err != nil {
			return err
		}
	}
	for _, table := range allTables {
		if err := t.exec(ctx, `DROP TABLE IF EXISTS `+table); err != nil {
			return err
		}
	}
	if err := t.build(ctx, b, known); err != nil {
		return err
	}
	if err := t.insert(ctx, lines); err != nil {
		return err
	}
	// Switches may have had any generation since; none has grown faster than this.
	generation = max(generation+1, uint64(time.Since(epoch)/time.Second))
	if err := t.exec(ctx, `UPDATE cluster SET generation = ?, members = ?`, int64(generation), members); err != nil {
		return err
	}
	// A revision that the change log does not have: who was asleep meanwhile reads
	// everything.
	t.revision = revision + 1
	if err := t.setRevision(ctx, t.revision); err != nil {
		return err
	}
	return t.expand(ctx, tableState{b.Schema, b.Contracted}, known)
}

// build makes empty tables of the version of a backup.
func (t *dbTx) build(ctx context.Context, b *BackupInfo, known schema) error {
	for v := range b.Schema {
		if err := t.run(ctx, known[v].expand); err != nil {
			return fmt.Errorf("make the tables of version %d: %w", v+1, err)
		}
	}
	for v := 1; v < b.Contracted; v++ {
		if err := t.run(ctx, known[v].contract); err != nil {
			return fmt.Errorf("contract the tables to version %d: %w", v+1, err)
		}
	}
	for _, table := range backupTables[1:] { // what expanding may have put there is in the backup
		if err := t.exec(ctx, `DELETE FROM `+table.name); err != nil {
			return err
		}
	}
	const set = `INSERT INTO meta (name, value) VALUES (?, ?), (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value`
	return t.exec(ctx, set, metaSchema, b.Schema, metaContracted, b.Contracted)
}

// insert writes the rows of a backup, those with the same columns together.
func (t *dbTx) insert(ctx context.Context, lines []backupLine) error {
	columnsOf := func(l backupLine) []string { return slices.Sorted(maps.Keys(l.values)) }
	for begin := 0; begin < len(lines); {
		first := lines[begin]
		columns := columnsOf(first)
		var rows [][]any
		end := begin
		for ; end < len(lines) && len(rows) < rowsPerStatement && lines[end].table == first.table && slices.Equal(columnsOf(lines[end]), columns); end++ {
			row := make([]any, len(columns))
			for i, c := range columns {
				row[i] = lines[end].values[c]
			}
			rows = append(rows, row)
		}
		for _, c := range columns {
			if strings.ContainsFunc(c, func(r rune) bool { return r != '_' && (r < 'a' || r > 'z') }) {
				return fmt.Errorf("backup: line %d: %q is no column", first.number, c)
			}
		}
		err := t.execRows(ctx, `INSERT INTO `+first.table+` (`+strings.Join(columns, ", ")+`) VALUES `, ``, len(columns), rows)
		if err != nil {
			return fmt.Errorf("backup: lines %d to %d, table %s: %w", first.number, lines[end-1].number, first.table, err)
		}
		begin = end
	}
	return nil
}

// check looks for what is wrong in a model that was restored, and says in which
// lines.
func (t *dbTx) check(ctx context.Context, lines []backupLine) ([]error, error) {
	at := map[objectKey]int{}
	for _, l := range lines {
		if l.table == "objects" {
			kind, _ := l.values["kind"].(string)
			id, _ := l.values["id"].(string)
			at[objectKey{Kind(kind), id}] = l.number
		}
	}
	objects, faults, err := t.restoredObjects(ctx, at)
	if err != nil || len(faults) > 0 {
		return faults, err
	}
	claims, err := t.allClaims(ctx)
	if err != nil {
		return nil, err
	}
	found := append(claimFaults(objects, claims), viewOf(objects, claims).Faults()...)
	slices.SortStableFunc(found, func(a, b *Fault) int { return cmp.Compare(at[objectKey{a.Kind, a.ID}], at[objectKey{b.Kind, b.ID}]) })
	for _, f := range found {
		faults = append(faults, located(at, f))
	}
	return faults, nil
}

// located is a fault with the line that has its object.
func located(at map[objectKey]int, f *Fault) error {
	if line, ok := at[objectKey{f.Kind, f.ID}]; ok {
		return fmt.Errorf("line %d: %w", line, f)
	}
	return f
}

// restoredObjects reads every object by its row.
func (t *dbTx) restoredObjects(ctx context.Context, at map[objectKey]int) (objects []Object, faults []error, err error) {
	rows, err := t.query(ctx, `SELECT kind, id, body FROM objects`)
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var kind, id, body string
		if err := rows.Scan(&kind, &id, &body); err != nil {
			return nil, nil, err
		}
		o, err := decodeObject(Kind(kind), body)
		if o == nil && err == nil {
			err = errors.New("this program does not know the kind")
		}
		if err == nil && o.ObjectID() != id {
			err = fmt.Errorf("its body is of %q", o.ObjectID())
		}
		if err != nil {
			faults = append(faults, located(at, &Fault{Kind(kind), id, err.Error()}))
			continue
		}
		objects = append(objects, o)
	}
	return objects, faults, rows.Err()
}

// claimFaults compares claims with those that follow from objects.
func claimFaults(objects []Object, claims []Claim) []*Fault {
	var faults []*Fault
	rows := map[claimKey]Claim{}
	for _, c := range claims {
		rows[c.key()] = c
	}
	for _, o := range objects {
		for _, c := range claimsOf(o) {
			held, there := rows[c.key()]
			delete(rows, c.key())
			switch {
			case !there:
				faults = append(faults, &Fault{o.ObjectKind(), o.ObjectID(), fmt.Sprintf("its claim to %s %s is missing, or another has it too", c.Space, c.Key)})
			case held != c:
				faults = append(faults, &Fault{o.ObjectKind(), o.ObjectID(), fmt.Sprintf("its %s %s is claimed by %s %s", c.Space, c.Key, held.OwnerKind, held.OwnerID)})
			}
		}
	}
	for _, c := range rows {
		faults = append(faults, &Fault{c.OwnerKind, c.OwnerID, fmt.Sprintf("a claim to %s %s does not follow from it", c.Space, c.Key)})
	}
	return faults
}

// viewOf is the view of a model.
func viewOf(objects []Object, claims []Claim) *View {
	t := newTrees().fork()
	for _, o := range objects {
		t.replace(o.ObjectKind(), nil, o)
	}
	for _, c := range claims {
		t.setClaim(c)
	}
	t.seal()
	return &View{trees: t}
}

// DatabaseInfo is how a database is.
type DatabaseInfo struct {
	Engine     string `json:"engine"`
	Schema     int    `json:"schema"` // 0 without tables
	Contracted int    `json:"contracted"`
	Revision   uint64 `json:"revision"`
	// Members are all that live, where that is known.
	Members []Member `json:"-"`
}

// Inspect tells how a database is, and changes nothing.
func Inspect(ctx context.Context, dsn string, living Living) (*DatabaseInfo, error) {
	d, err := connect(dsn, reading)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	tx, err := d.BeginTx(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	t := &dbTx{Tx: tx, d: d}
	defer t.end()
	state, err := t.tableState(ctx)
	if err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	info := &DatabaseInfo{Engine: d.engine(), Schema: state.version, Contracted: state.contracted}
	if state.version == 0 {
		return info, nil
	}
	if err := t.QueryRowContext(ctx, `SELECT value FROM meta WHERE name = 'revision'`).Scan(&info.Revision); err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	if d.postgres {
		info.Members, err = living(ctx, tx)
	}
	return info, err
}
