package network

import (
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
	"time"
)

// A backup is text, a JSON object a line: first the BackupHeader, then a
// backupRow for each row of the tables, in the end a backupEnd. It is the same
// from SQLite and PostgreSQL.

// backupFormat is the version of that.
const backupFormat = 1

// BackupHeader is the first line of a backup.
type BackupHeader struct {
	Format     int       `json:"planck_backup"`
	Program    string    `json:"program"` // its version
	Engine     string    `json:"engine"`
	At         time.Time `json:"at"`
	Schema     int       `json:"schema"`
	Contracted int       `json:"contracted"`
	Revision   uint64    `json:"revision"`
	// Generation is that of the cluster: switches refuse an older one.
	Generation uint64 `json:"generation"`
}

// backupRow is a row of a table; texts that are JSON are written as that.
type backupRow struct {
	Table string                     `json:"table"`
	Row   map[string]json.RawMessage `json:"row"`
}

// backupEnd is the last line.
type backupEnd struct {
	Rows   map[string]int `json:"rows"`   // by table
	SHA256 string         `json:"sha256"` // of all lines before
}

// backupTable is a table with the model in it.
type backupTable struct {
	name, order string
	where       string
	json        string // column whose texts are JSON
}

var backupTables = []backupTable{
	{name: "meta", order: "name", where: ` WHERE name LIKE '` + cursorName + `%'`}, // the rest is in the header
	{name: "objects", order: "kind, id", json: "body"},
	{name: "claims", order: "space, key"},
	{name: "changes", order: "revision", json: "entries"},
	{name: "outbox", order: "queue, revision, n"},
}

// allTables are those that a schema that this program knows may have.
var allTables = []string{"meta", "objects", "claims", "changes", "outbox", "cluster"}

// BackupInfo is what a backup has.
type BackupInfo struct {
	BackupHeader
	Rows map[string]int
}

// WriteBackup writes the model as it is at one moment. The database may be in use.
func WriteBackup(ctx context.Context, dsn, program string, w io.Writer) (*BackupInfo, error) {
	d, err := connect(dsn, reading)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	if state, err := d.state(ctx); err != nil || state.version == 0 {
		return nil, fmt.Errorf("database: %w", cmp.Or(err, errors.New("it is empty")))
	}
	tx, err := d.begin(ctx, false)
	if err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	defer tx.end()
	state, err := tx.tableState(ctx)
	if err != nil {
		return nil, fmt.Errorf("database schema: %w", err)
	}
	if state.version > ownSchema.version() {
		return nil, fmt.Errorf("database schema: it has version %d, this program knows %d: a newer one is needed", state.version, ownSchema.version())
	}
	b := &BackupInfo{Rows: map[string]int{}, BackupHeader: BackupHeader{
		Format: backupFormat, Program: program, Engine: d.engine(), At: time.Now().UTC().Truncate(time.Second),
		Schema: state.version, Contracted: state.contracted, Revision: tx.revision,
	}}
	if b.Generation, err = tx.generation(ctx); err != nil {
		return nil, err
	}
	out := &summing{buffer: bufio.NewWriter(w), sum: sha256.New()}
	if err := out.line(b.BackupHeader); err != nil {
		return nil, err
	}
	for _, table := range backupTables {
		if b.Rows[table.name], err = tx.backup(ctx, table, out); err != nil {
			return nil, fmt.Errorf("table %s: %w", table.name, err)
		}
	}
	if err := out.line(backupEnd{Rows: b.Rows, SHA256: hex.EncodeToString(out.sum.Sum(nil))}); err != nil {
		return nil, err
	}
	return b, out.buffer.Flush()
}

func (d *database) engine() string {
	if d.postgres {
		return "postgresql"
	}
	return "sqlite"
}

// generation is the one that the next master of a switch has, at least.
func (t *dbTx) generation(ctx context.Context) (generation uint64, err error) {
	err = t.QueryRowContext(ctx, `SELECT generation FROM cluster`).Scan(&generation)
	return generation, err
}

// Generation is with which a controller that is alone becomes the master of
// switches: they may have had one of a cluster before.
func (s *Store) Generation(ctx context.Context) (uint64, error) {
	tx, err := s.db.begin(ctx, false)
	if err != nil {
		return 0, err
	}
	defer tx.end()
	return tx.generation(ctx)
}

// summing writes lines and sums what it wrote.
type summing struct {
	buffer *bufio.Writer
	sum    hash.Hash
}

func (s *summing) line(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	text = append(text, '\n')
	s.sum.Write(text)
	_, err = s.buffer.Write(text)
	return err
}

// backup writes the rows of a table, and counts them.
func (t *dbTx) backup(ctx context.Context, table backupTable, out *summing) (n int, err error) {
	rows, err := t.query(ctx, `SELECT * FROM `+table.name+table.where+` ORDER BY `+table.order)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return 0, err
	}
	values, into := make([]any, len(columns)), make([]any, len(columns))
	for i := range values {
		into[i] = &values[i]
	}
	for ; rows.Next(); n++ {
		if err := rows.Scan(into...); err != nil {
			return n, err
		}
		row := map[string]json.RawMessage{}
		for i, c := range columns {
			if row[c], err = backupValue(values[i], c == table.json); err != nil {
				return n, fmt.Errorf("column %s: %w", c, err)
			}
		}
		if err := out.line(backupRow{table.name, row}); err != nil {
			return n, err
		}
	}
	return n, rows.Err()
}

func backupValue(v any, isJSON bool) (json.RawMessage, error) {
	if b, ok := v.([]byte); ok {
		v = string(b)
	}
	text, ok := v.(string)
	if ok && isJSON {
		if begin := strings.TrimLeft(text, " \t\r\n"); !json.Valid([]byte(text)) || begin[0] != '{' && begin[0] != '[' {
			return nil, fmt.Errorf("%.40q is no JSON object or list", text)
		}
		return json.RawMessage(text), nil
	}
	if _, number := v.(int64); !ok && !number {
		return nil, fmt.Errorf("it has a %T", v)
	}
	return json.Marshal(v)
}

// backupLine is a row that was read.
type backupLine struct {
	number int
	table  string
	values map[string]any
}

// readBackup reads a whole backup and checks that it is one, and whole.
func readBackup(r io.Reader) (*BackupInfo, []backupLine, error) {
	in := bufio.NewReaderSize(r, 1<<20)
	sum := sha256.New()
	b := &BackupInfo{Rows: map[string]int{}}
	var lines []backupLine
	for number := 1; ; number++ {
		text, err := in.ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, nil, err
		}
		if err != nil {
			return nil, nil, fmt.Errorf("line %d: the file ends early, without its checksum", number)
		}
		if number == 1 {
			if err := b.readHeader(text); err != nil {
				return nil, nil, fmt.Errorf("line 1: %w", err)
			}
			sum.Write(text)
			continue
		}
		var end backupEnd
		if err := json.Unmarshal(text, &end); err == nil && end.SHA256 != "" {
			if err := b.readEnd(end, hex.EncodeToString(sum.Sum(nil))); err != nil {
				return nil, nil, fmt.Errorf("line %d: %w", number, err)
			}
			if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
				return nil, nil, fmt.Errorf("line %d: there is something behind the end", number+1)
			}
			return b, lines, nil
		}
		sum.Write(text)
		line, err := readRow(text)
		if err != nil {
			return nil, nil, fmt.Errorf("line %d: %w", number, err)
		}
		line.number = number
		b.Rows[line.table]++
		lines = append(lines, *line)
	}
}

func (b *BackupInfo) readHeader(text []byte) error {
	if err := json.Unmarshal(text, &b.BackupHeader); err != nil || b.Format == 0 {
		return errors.New("this is no backup by planck db")
	}
	if b.Format > backupFormat {
		return fmt.Errorf("the format %d of planck %s is newer than what this program knows (%d)", b.Format, b.Program, backupFormat)
	}
	if b.Schema > ownSchema.version() {
		return fmt.Errorf("the schema %d of planck %s is newer than what this program knows (%d)", b.Schema, b.Program, ownSchema.version())
	}
	if b.Contracted < 1 || b.Contracted > b.Schema {
		return fmt.Errorf("schema %d, contracted to %d: that can't be", b.Schema, b.Contracted)
	}
	return nil
}

func (b *BackupInfo) readEnd(end backupEnd, sum string) error {
	if end.SHA256 != sum {
		return fmt.Errorf("the checksum is %s, not %s: the file was damaged or changed", sum, end.SHA256)
	}
	for table, n := range end.Rows {
		if b.Rows[table] != n {
			return fmt.Errorf("table %s has %d rows, not %d", table, b.Rows[table], n)
		}
	}
	return nil
}

func readRow(text []byte) (*backupLine, error) {
	var row backupRow
	if err := json.Unmarshal(text, &row); err != nil {
		return nil, err
	}
	known := false
	for _, t := range backupTables {
		known = known || t.name == row.Table
	}
	if !known {
		return nil, fmt.Errorf("%q is no table of a backup", row.Table)
	}
	line := &backupLine{table: row.Table, values: map[string]any{}}
	for column, value := range row.Row {
		var err error
		if line.values[column], err = restoredValue(value); err != nil {
			return nil, fmt.Errorf("table %s, column %s: %w", row.Table, column, err)
		}
	}
	return line, nil
}

func restoredValue(value json.RawMessage) (any, error) {
	switch value[0] {
	case '{', '[':
		return string(value), nil
	case '"':
		var text string
		err := json.Unmarshal(value, &text)
		return text, err
	}
	var n int64
	err := json.Unmarshal(value, &n)
	return n, err
}
