package main

import (
	"os"
	"syscall"
	"unsafe"
)

// This file and clock_amd64.s are added to cmd/planck to build a controller
// whose wall clock a test can set: time.Now asks the clock_gettime of the vDSO,
// which no library can come between, but its address is a variable.

var (
	realGettime uintptr // the vDSO's clock_gettime
	offset      *int64  // seconds that the wall clock is off, in a file of the test
)

// replaceGettime puts a clock_gettime that adds the offset in the vDSO's place.
func replaceGettime()

func init() {
	file, err := os.OpenFile(os.Getenv("PLANCK_TEST_CLOCK"), os.O_RDONLY, 0)
	if err != nil {
		panic(err)
	}
	defer file.Close()
	shared, err := syscall.Mmap(int(file.Fd()), 0, int(unsafe.Sizeof(*offset)), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		panic(err)
	}
	offset = (*int64)(unsafe.Pointer(&shared[0]))
	replaceGettime()
	if realGettime == 0 {
		panic("time.Now does not use the vDSO here")
	}
}
