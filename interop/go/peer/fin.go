package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync"

	"github.com/xtaci/kcp-go/v5"
	"github.com/xtaci/smux"
)

// finMode says what a received FIN does to the writing half of a smux v2 stream. It changed twice:
//
//	old  (to 1.5.27)        writing goes on while window is left; running into its end is the end
//	mid  (1.5.28 to 1.5.53) every later write fails at once
//	new  (from 1.5.54)      writing goes on and waits for window updates as if nothing had happened
//
// The library linked here is taken to be an old one. A tap between KCP and smux reads the frames that come in and makes
// the other two of it: for mid, writes ask the tap first; for new, smux is shown a NOP in place of the FIN, and the end
// of the stream is told by the tap.
type finMode string

func (m *finMode) String() string { return string(*m) }
func (m *finMode) Set(s string) error {
	switch s {
	case "old", "mid", "new":
		*m = finMode(s)
		return nil
	}
	return fmt.Errorf("want old, mid or new")
}

const (
	cmdFIN = 1
	cmdPSH = 2
	cmdNOP = 3
)

// tap is the connection that smux gets. It knows what has arrived on every stream.
type tap struct {
	*kcp.UDPSession
	mode finMode

	// Of the frame being read, by smux's one reading goroutine only.
	header  []byte // not yet handed on
	payload int    // not yet read

	mutex sync.Mutex
	seen  map[uint32]*arrivals
}

type arrivals struct {
	bytes    uint64
	finished chan struct{} // closed by the first FIN; bytes is final then
	over     bool
}

func newTap(conn *kcp.UDPSession, mode finMode) *tap {
	return &tap{UDPSession: conn, mode: mode, seen: make(map[uint32]*arrivals)}
}

func (t *tap) stream(id uint32) *arrivals {
	a, ok := t.seen[id]
	if !ok {
		a = &arrivals{finished: make(chan struct{})}
		t.seen[id] = a
	}
	return a
}

// of gives the arrivals of a stream and whether its FIN is among them.
func (t *tap) of(id uint32) (a *arrivals, finished bool) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	a = t.stream(id)
	return a, a.over
}

func (t *tap) Read(p []byte) (int, error) {
	if len(t.header) == 0 && t.payload == 0 {
		header := make([]byte, 8)
		if _, err := io.ReadFull(t.UDPSession, header); err != nil {
			return 0, err
		}
		t.inspect(header)
		t.header = header
	}
	if len(t.header) > 0 {
		n := copy(p, t.header)
		t.header = t.header[n:]
		return n, nil
	}
	if len(p) > t.payload {
		p = p[:t.payload]
	}
	n, err := t.UDPSession.Read(p)
	t.payload -= n
	return n, err
}

// inspect takes note of a frame's header and disguises a FIN where smux is not to see it.
func (t *tap) inspect(header []byte) {
	id := binary.LittleEndian.Uint32(header[4:])
	t.payload = int(binary.LittleEndian.Uint16(header[2:]))
	t.mutex.Lock()
	defer t.mutex.Unlock()
	switch header[1] {
	case cmdPSH:
		t.stream(id).bytes += uint64(t.payload)
	case cmdFIN:
		if a := t.stream(id); !a.over {
			a.over = true
			close(a.finished)
		}
		if t.mode == "new" {
			header[1] = cmdNOP
			binary.LittleEndian.PutUint32(header[4:], 0)
		}
	}
}

// halfClose ends our half of a stream as CloseWrite of new libraries does. Nothing may be written to it afterwards, and
// all writes must have returned: then their frames are in KCP, and this one comes behind them.
func (t *tap) halfClose(id uint32) error {
	fin := []byte{2, cmdFIN, 0, 0, 0, 0, 0, 0}
	binary.LittleEndian.PutUint32(fin[4:], id)
	_, err := t.UDPSession.Write(fin)
	return err
}

// endpoint is a stream with the writing half that the mode asks for.
type endpoint struct {
	*smux.Stream
	tap    *tap
	chunks chan chunk // new only: what a goroutine of its own reads
	rest   []byte
	read   uint64
}

type chunk struct {
	bytes []byte
	err   error
}

func newEndpoint(stream *smux.Stream, t *tap) *endpoint {
	e := &endpoint{Stream: stream, tap: t}
	if t.mode == "new" {
		e.chunks = make(chan chunk)
		go func() {
			for {
				buffer := make([]byte, 32768)
				n, err := stream.Read(buffer)
				select {
				case e.chunks <- chunk{buffer[:n], err}:
				case <-stream.GetDieCh():
					return
				}
				if err != nil {
					return
				}
			}
		}()
	}
	return e
}

func (e *endpoint) Write(p []byte) (int, error) {
	if _, finished := e.tap.of(e.ID()); finished && e.tap.mode == "mid" {
		return 0, io.EOF
	}
	return e.Stream.Write(p)
}

func (e *endpoint) Read(p []byte) (int, error) {
	if e.chunks == nil {
		return e.Stream.Read(p)
	}
	a, _ := e.tap.of(e.ID())
	for finished := a.finished; len(e.rest) == 0; {
		if _, over := e.tap.of(e.ID()); over && e.read == a.bytes {
			return 0, io.EOF
		}
		select {
		case c := <-e.chunks:
			if len(c.bytes) == 0 && c.err != nil {
				return 0, c.err
			}
			e.rest = c.bytes
			e.read += uint64(len(c.bytes))
		case <-finished:
			finished = nil // told once; now the chunks that are still to come
		case <-e.GetDieCh():
			return 0, io.ErrClosedPipe
		}
	}
	n := copy(p, e.rest)
	e.rest = e.rest[n:]
	return n, nil
}
