package network

import (
	"context"
	"database/sql/driver"
	"errors"
)

const (
	// mostPrepared is how many statements a connection keeps compiled.
	mostPrepared = 64
	// longestPrepared is the longest that is kept: those of many rows are rare.
	longestPrepared = 1 << 10
)

// preparing opens connections that compile a statement once, where the driver
// compiles it each time that it is executed.
type preparing struct{ driver.Connector }

// Connect implements driver.Connector.
func (p preparing) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := p.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &preparingConn{conn.(sqlConn), map[string]driver.StmtExecContext{}}, nil
}

// preparingConn is used by one goroutine at a time, as all connections are.
type preparingConn struct {
	sqlConn
	kept map[string]driver.StmtExecContext
}

// ExecContext implements driver.ExecerContext.
func (c *preparingConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if len(args) == 0 || len(query) > longestPrepared {
		return c.sqlConn.ExecContext(ctx, query, args)
	}
	s, err := c.prepared(ctx, query)
	if err != nil {
		return nil, err
	}
	return s.ExecContext(ctx, args)
}

func (c *preparingConn) prepared(ctx context.Context, query string) (driver.StmtExecContext, error) {
	if s, ok := c.kept[query]; ok {
		return s, nil
	}
	if len(c.kept) == mostPrepared {
		if err := c.forget(); err != nil {
			return nil, err
		}
	}
	s, err := c.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	c.kept[query] = s.(driver.StmtExecContext)
	return c.kept[query], nil
}

// forget closes all statements that are kept.
func (c *preparingConn) forget() error {
	var errs []error
	for _, s := range c.kept {
		errs = append(errs, s.(driver.Stmt).Close())
	}
	clear(c.kept)
	return errors.Join(errs...)
}

// Close implements driver.Conn.
func (c *preparingConn) Close() error { return errors.Join(c.forget(), c.sqlConn.Close()) }
