package main

import (
	"bufio"
	"log"
	"net"
	"sync"
	"time"
)

// redialer is the client's net.PacketConn: one TCP connection after the other to the same address. As in the worked
// example there is no pause between the end of one and the dial of the next, and an outgoing packet that finds the
// queue full is dropped without a word to KCP.
type redialer struct {
	noDeadlines
	id       sessionID
	addr     string
	retry    bool
	incoming chan []byte
	outgoing chan []byte
	once     sync.Once
	closed   chan struct{}
	err      error // why, set before closed is
}

func dialAgainAndAgain(id sessionID, addr string, queue int, retry bool) *redialer {
	r := &redialer{
		id: id, addr: addr, retry: retry,
		incoming: make(chan []byte, queue),
		outgoing: make(chan []byte, queue),
		closed:   make(chan struct{}),
	}
	go r.run()
	return r
}

func (r *redialer) run() {
	for {
		select {
		case <-r.closed:
			return
		default:
		}
		conn, err := net.Dial("tcp", r.addr)
		switch {
		case err == nil:
			n := counters.connections.Add(1)
			log.Printf("session %v: connection %d", r.id, n)
			r.exchange(conn)
		case r.retry:
			time.Sleep(100 * time.Millisecond)
		default:
			r.end(err)
			return
		}
	}
}

// exchange moves packets until the connection ends.
func (r *redialer) exchange(conn net.Conn) {
	if _, err := conn.Write(r.id[:]); err != nil {
		conn.Close()
		return
	}
	readerGone := make(chan struct{})
	go func() {
		defer close(readerGone)
		in := bufio.NewReader(conn)
		for {
			packet, err := readPacket(in)
			if err != nil {
				return
			}
			counters.packetsIn.Add(1)
			select {
			case r.incoming <- packet:
			case <-r.closed:
				return
			}
		}
	}()
	var buffer []byte
	for alive := true; alive; {
		select {
		case packet := <-r.outgoing:
			buffer = appendPacket(buffer[:0], packet)
			_, err := conn.Write(buffer)
			alive = err == nil
		case <-readerGone:
			alive = false
		case <-r.closed:
			alive = false
		}
	}
	conn.Close()
	<-readerGone
}

// drained waits until everything queued was handed to TCP, for a while.
func (r *redialer) drained(limit time.Duration) {
	for end := time.Now().Add(limit); len(r.outgoing) > 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
}

func (r *redialer) end(err error) {
	r.once.Do(func() {
		r.err = err
		close(r.closed)
	})
}

func (r *redialer) ReadFrom(p []byte) (int, net.Addr, error) {
	select {
	case packet := <-r.incoming:
		return copy(p, packet), r.RemoteAddr(), nil
	case <-r.closed:
		return 0, nil, r.err
	}
}

func (r *redialer) WriteTo(p []byte, _ net.Addr) (int, error) {
	select {
	case <-r.closed:
		return 0, r.err
	default:
	}
	select {
	case r.outgoing <- append([]byte(nil), p...):
		counters.packetsOut.Add(1)
	default:
		counters.droppedOut.Add(1)
	}
	return len(p), nil
}

// server stands for all the connections to it.
type server string

func (server) Network() string  { return "tcp" }
func (s server) String() string { return string(s) }

func (r *redialer) RemoteAddr() net.Addr { return server(r.addr) }
func (r *redialer) LocalAddr() net.Addr  { return r.id }
func (r *redialer) Close() error         { r.end(errClosed); return nil }
