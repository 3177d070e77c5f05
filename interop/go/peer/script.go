package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/xtaci/smux"
)

// task is what happens on one stream of a script. The client says it in a line of text at the beginning of the stream:
//
//	echo UP DOWN SEED    all that comes goes back, until it ends
//	swap UP DOWN SEED    UP bytes come while DOWN bytes go; then the server ends the stream
//	wait UP DOWN SEED    the same, but the client ends it
//
// Both directions are patterns, of SEED up and of its complement down.
type task struct {
	what     string
	up, down uint64
	seed     uint64
	end      string        // how the client ends: "last" when all has come, "half" after its last byte, "leave" in the middle
	start    time.Duration // when the client opens the stream
}

func (t *task) header() string { return fmt.Sprintf("%s %d %d %d\n", t.what, t.up, t.down, t.seed) }

func (t *task) comesDown() (pattern, uint64) {
	if t.what == "echo" {
		return pattern(t.seed), t.up
	}
	return pattern(^t.seed), t.down
}

// send writes a pattern in pieces of random size, now and then after a pause.
func send(to io.Writer, p pattern, total, seed uint64) error {
	random := random(seed)
	most := total/40 + 100
	for sent := uint64(0); sent < total; {
		piece := make([]byte, least(1+random.next()%most, total-sent))
		p.fill(sent, piece)
		if random.next()%8 == 0 {
			time.Sleep(time.Duration(random.next()%40) * time.Millisecond)
		}
		if _, err := to.Write(piece); err != nil {
			return fmt.Errorf("after %d of %d bytes sent: %w", sent, total, err)
		}
		sent += uint64(len(piece))
	}
	return nil
}

// receive reads so many bytes of a pattern and compares each of them.
func receive(from io.Reader, p pattern, total uint64) error {
	buffer := make([]byte, 32768)
	for received := uint64(0); received < total; {
		n, err := from.Read(buffer[:least(uint64(len(buffer)), total-received)])
		for i, b := range buffer[:n] {
			if want := p.at(received + uint64(i)); b != want {
				return fmt.Errorf("byte %d is %#02x instead of %#02x", received+uint64(i), b, want)
			}
		}
		received += uint64(n)
		if err != nil && received < total {
			return fmt.Errorf("after %d of %d bytes received: %w", received, total, err)
		}
	}
	return nil
}

func receiveEnd(from io.Reader) error {
	switch n, err := from.Read(make([]byte, 1)); {
	case n > 0:
		return errors.New("bytes too many")
	case err == nil || err == io.EOF:
		return nil
	default:
		return fmt.Errorf("at the end: %w", err)
	}
}

// both runs two halves of a stream at the same time.
func both(one, other func() error) error {
	done := make(chan error, 1)
	go func() { done <- one() }()
	err := other()
	if first := <-done; first != nil {
		return first
	}
	return err
}

func least(a, b uint64) uint64 {
	if a < b {
		return a
	}
	return b
}

func scriptServer(s settings, addr string, whileStdin bool) error {
	return serve(s, addr, whileStdin, func(stream *smux.Stream, tap *tap) {
		defer stream.Close()
		if err := serveTask(newEndpoint(stream, tap)); err != nil {
			counters.tasksFailed.Add(1)
			log.Printf("stream %d failed: %v", stream.ID(), err)
		}
	})
}

func serveTask(stream *endpoint) error {
	from := bufio.NewReader(stream)
	line, err := from.ReadString('\n')
	if err != nil {
		return fmt.Errorf("header: %w", err)
	}
	var t task
	if _, err := fmt.Sscanf(line, "%s %d %d %d", &t.what, &t.up, &t.down, &t.seed); err != nil {
		return fmt.Errorf("header %q: %w", line, err)
	}
	if t.what == "echo" {
		// Whoever leaves in the middle is no failure.
		if n, err := copyOver(stream, from, nil); err == nil && uint64(n) == t.up {
			counters.tasksDone.Add(1)
		}
		return nil
	}
	err = both(
		func() error { return receive(from, pattern(t.seed), t.up) },
		func() error { return send(stream, pattern(^t.seed), t.down, t.seed) },
	)
	if err == nil && t.what == "wait" {
		err = receiveEnd(from)
	}
	if err == nil {
		counters.tasksDone.Add(1)
	}
	return err
}

// scriptClient reads tasks from stdin, a line each: milliseconds until it begins, its header, and how it ends.
func scriptClient(s settings, addr string, retry bool) error {
	var tasks []*task
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var t task
		var start int
		_, err := fmt.Sscanf(lines.Text(), "%d %s %d %d %d %s", &start, &t.what, &t.up, &t.down, &t.seed, &t.end)
		if err != nil {
			return fmt.Errorf("%q: %w", lines.Text(), err)
		}
		t.start = time.Duration(start) * time.Millisecond
		tasks = append(tasks, &t)
	}
	return withSession(s, addr, retry, func(session *smux.Session, tap *tap) error {
		var wait sync.WaitGroup
		failures := make(chan error, len(tasks))
		for _, t := range tasks {
			wait.Add(1)
			go func(t *task) {
				defer wait.Done()
				time.Sleep(t.start)
				if err := t.play(session, tap); err != nil {
					failures <- fmt.Errorf("%s: %w", strings.TrimSpace(t.header()), err)
					return
				}
				counters.tasksDone.Add(1)
			}(t)
		}
		wait.Wait()
		close(failures)
		return <-failures
	})
}

func (t *task) play(session *smux.Session, tap *tap) error {
	raw, err := session.OpenStream()
	if err != nil {
		return err
	}
	defer raw.Close()
	stream := newEndpoint(raw, tap)
	if _, err := stream.Write([]byte(t.header())); err != nil {
		return err
	}
	p, total := t.comesDown()
	sending := func() error {
		err := send(stream, pattern(t.seed), t.up, ^t.seed)
		if err == nil && t.end == "half" {
			err = tap.halfClose(raw.ID())
		}
		return err
	}
	if t.end == "leave" {
		go sending() // all may be sent by then, or not
		return receive(stream, p, total/2)
	}
	err = both(sending, func() error { return receive(stream, p, total) })
	if err != nil {
		return err
	}
	if t.end == "last" && t.what != "swap" {
		if err := tap.halfClose(raw.ID()); err != nil {
			return err
		}
	}
	return receiveEnd(stream)
}
