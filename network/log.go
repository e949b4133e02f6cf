package network

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"time"
)

// Ref names an object.
type Ref struct {
	Kind Kind
	ID   string
}

// Logged is a revision as the change log has it.
type Logged struct {
	Revision uint64
	At       time.Time
	Cause    Cause
	Objects  []Ref // that it wrote or deleted
}

// LogQuery selects revisions of the change log.
type LogQuery struct {
	Before    uint64 // only older ones; 0 for all
	RequestID string // "" for all
	Most      int
}

// Logged reads the change log, newest first.
func (s *Store) Logged(ctx context.Context, q LogQuery) ([]Logged, error) {
	before := int64(math.MaxInt64)
	if q.Before != 0 && q.Before < math.MaxInt64 {
		before = int64(q.Before)
	}
	query, args := `SELECT revision, at, request_id, project_id, user_id, operation, entries FROM changes WHERE revision < ?`, []any{before}
	if q.RequestID != "" {
		query, args = query+` AND request_id = ?`, append(args, clean(q.RequestID))
	}
	rows, err := s.db.QueryContext(ctx, s.db.numbered(query+` ORDER BY revision DESC LIMIT ?`), append(args, q.Most)...)
	if err != nil {
		return nil, fmt.Errorf("read the change log: %w", err)
	}
	defer rows.Close()
	var list []Logged
	for rows.Next() {
		var l Logged
		var at, entries string
		c := &l.Cause
		if err := rows.Scan(&l.Revision, &at, &c.RequestID, &c.ProjectID, &c.UserID, &c.Operation, &entries); err != nil {
			return nil, fmt.Errorf("read the change log: %w", err)
		}
		if err := l.decode(at, entries); err != nil {
			return nil, fmt.Errorf("read the change log at revision %d: %w", l.Revision, err)
		}
		list = append(list, l)
	}
	return list, rows.Err()
}

// decode reads what the log has as text.
func (l *Logged) decode(at, entries string) (err error) {
	if l.At, err = time.Parse(time.RFC3339Nano, at); err != nil {
		return err
	}
	var keys []objectKey
	if err := json.Unmarshal([]byte(entries), &keys); err != nil {
		return err
	}
	l.Objects = make([]Ref, len(keys))
	for i, k := range keys {
		l.Objects[i] = Ref{k.kind, k.id}
	}
	return nil
}

// Object is an object of any kind, or nil.
func (v *View) Object(r Ref) Object {
	if tableOf[r.Kind] == nil {
		return nil
	}
	v.note(tableOf[r.Kind].byID, r.ID)
	return v.object(r.Kind, r.ID)
}
