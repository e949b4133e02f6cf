package network

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// lockPatience is how long a controller that starts waits for the end of what
// needs the database alone, looking each lockPause.
const (
	lockPatience = 10 * time.Second
	lockPause    = 50 * time.Millisecond
)

// lockFile takes the lock that says that somebody works with an SQLite database:
// alone, or with others who do, for which it waits a while. Closing the file, or
// dying, gives it back.
func lockFile(path string, alone bool) (*os.File, error) {
	f, err := os.OpenFile(path+"-lock", os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	how, patience := syscall.LOCK_SH, lockPatience
	if alone {
		how, patience = syscall.LOCK_EX, 0
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(lockPause) {
		err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB)
		busy := errors.Is(err, syscall.EWOULDBLOCK)
		switch {
		case err == nil:
			return f, nil
		case busy && time.Now().Before(deadline):
			continue
		case busy && alone:
			err = ErrInUse
		case busy:
			err = errors.New("it is being restored or migrated")
		}
		f.Close()
		return nil, fmt.Errorf("database %s: %w", path, err)
	}
}
