package network

import (
	"context"
	"encoding/json"
	"errors"
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
	var texts [][2]string // at, entries
	for rows.Next() {
		var l Logged
		var text [2]string
		c := &l.Cause
		if err := rows.Scan(&l.Revision, &text[0], &c.RequestID, &c.ProjectID, &c.UserID, &c.Operation, &text[1]); err != nil {
			return nil, fmt.Errorf("read the change log: %w", err)
		}
		list, texts = append(list, l), append(texts, text)
	}
	// Before they are decoded: SQLite has one connection, which others wait for.
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return nil, fmt.Errorf("read the change log: %w", err)
	}
	for i := range list {
		if err := list[i].decode(texts[i][0], texts[i][1]); err != nil {
			return nil, fmt.Errorf("read the change log at revision %d: %w", list[i].Revision, err)
		}
	}
	return list, nil
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
