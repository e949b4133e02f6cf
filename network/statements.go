package network

import (
	"context"
	"database/sql/driver"
	"sync/atomic"
)

// Statements is how many statements this program has sent to the database,
// begins and ends of transactions included.
func (s *Store) Statements() uint64 { return s.db.statements.Load() }

// counting opens connections whose statements are counted.
type counting struct {
	driver.Connector
	n *atomic.Uint64
}

// Connect implements driver.Connector.
func (c counting) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return countingConn{conn.(sqlConn), c.n}, nil
}

// sqlConn is what both drivers' connections can do.
type sqlConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.Pinger
	driver.QueryerContext
	driver.SessionResetter
	driver.Validator
}

type countingConn struct {
	sqlConn
	n *atomic.Uint64
}

// ExecContext implements driver.ExecerContext.
func (c countingConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	c.n.Add(1)
	return c.sqlConn.ExecContext(ctx, query, args)
}

// QueryContext implements driver.QueryerContext.
func (c countingConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	c.n.Add(1)
	return c.sqlConn.QueryContext(ctx, query, args)
}

// BeginTx implements driver.ConnBeginTx.
func (c countingConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	c.n.Add(1)
	tx, err := c.sqlConn.BeginTx(ctx, opts)
	if err != nil {
		return nil, err
	}
	return countingTx{tx, c.n}, nil
}

// CheckNamedValue implements driver.NamedValueChecker for the driver that does.
func (c countingConn) CheckNamedValue(v *driver.NamedValue) error {
	if checker, ok := c.sqlConn.(driver.NamedValueChecker); ok {
		return checker.CheckNamedValue(v)
	}
	return driver.ErrSkip
}

type countingTx struct {
	driver.Tx
	n *atomic.Uint64
}

// Commit implements driver.Tx.
func (t countingTx) Commit() error {
	t.n.Add(1)
	return t.Tx.Commit()
}

// Rollback implements driver.Tx.
func (t countingTx) Rollback() error {
	t.n.Add(1)
	return t.Tx.Rollback()
}
