package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// ownCPU is the processor time that this process has used.
func ownCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // only a wrong argument can fail
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// processCPU is the processor time of all threads of a process, from
// /proc/PID/task/*/schedstat: /proc/PID/stat counts in steps of 10 ms.
func processCPU(tb testing.TB, pid int) time.Duration {
	tb.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(threads) == 0 {
		tb.Fatalf("process %d is not there: %v", pid, err)
	}
	var sum time.Duration
	for _, file := range threads {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // a thread that ended
		}
		first, _, _ := strings.Cut(string(text), " ")
		ns, err := strconv.ParseInt(first, 10, 64)
		if err != nil {
			tb.Fatal(err)
		}
		sum += time.Duration(ns)
	}
	return sum
}

// residentMiB is the memory that a process holds.
func residentMiB(tb testing.TB, pid int) float64 {
	tb.Helper()
	return memoryOf(tb, fmt.Sprintf("/proc/%d/status", pid), "VmRSS:")
}

// proportionalMiB is the memory that a process holds, where what it shares with
// others counts as its part.
func proportionalMiB(tb testing.TB, pid int) float64 {
	tb.Helper()
	return memoryOf(tb, fmt.Sprintf("/proc/%d/smaps_rollup", pid), "Pss:")
}

func memoryOf(tb testing.TB, file, name string) float64 {
	tb.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		tb.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == name {
			kib, err := strconv.Atoi(f[1])
			if err != nil {
				tb.Fatal(err)
			}
			return float64(kib) / 1024
		}
	}
	tb.Fatalf("%s has no %s", file, name)
	return 0
}

// heap is the memory in use after a collection.
func heap() uint64 {
	runtime.GC()
	runtime.GC() // what finalizers and pools held goes with the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// percentile of durations that need not be sorted.
func percentile(all []time.Duration, p float64) time.Duration {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	return sorted[min(len(sorted)-1, int(p/100*float64(len(sorted))))]
}

// ms writes a duration in milliseconds.
func ms(d time.Duration) string {
	v := float64(d) / float64(time.Millisecond)
	if v >= 100 {
		return fmt.Sprintf("%.0f ms", v)
	}
	return fmt.Sprintf("%.2g ms", v)
}

// us writes a duration in microseconds.
func us(d time.Duration) string { return fmt.Sprintf("%.3g µs", float64(d)/float64(time.Microsecond)) }

// count writes a number with separators.
func count(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// perSecond writes a rate.
func perSecond(n int, d time.Duration) string { return count(int(float64(n)/d.Seconds())) + " /s" }

// times writes a ratio.
func times(r float64) string { return fmt.Sprintf("%.2f×", r) }
